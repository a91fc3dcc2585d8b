"""`kontext-trt bench`: what a request costs, where its time goes, how far from the limit, and what else takes."""
