"""
Files that hold annotations: pure functions that write a format and read it back.

Every module says where its format is defined and what is lost on the way. All of them write UTF-8 with "\\n" at line
ends, and the same annotations always give the same bytes.
"""
