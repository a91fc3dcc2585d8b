"""Makes graphs: traces networks, says where their weights lie, and quantizes them."""
