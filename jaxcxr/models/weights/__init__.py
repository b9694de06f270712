"""Weight files of other frameworks, read without executing anything."""
