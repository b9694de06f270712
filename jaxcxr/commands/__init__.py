"""The commands of `jaxcxr`: one file each, arguments and printing only."""
