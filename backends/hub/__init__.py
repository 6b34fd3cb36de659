"""Folders that Hugging Face's `kernels` library loads. Its parts are imported one by one."""
