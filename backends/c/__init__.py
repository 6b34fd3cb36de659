"""C files of a package, for programs without Python. Its parts are imported one by one."""
