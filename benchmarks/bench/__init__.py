"""`kontext-trt bench`: what a request costs, where the time goes, how far from the limit, and beside what else there is."""
