"""Measures what a request costs (`kontext-trt bench`): where its time goes, how far from the limit, what else takes."""
