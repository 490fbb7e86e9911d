"""Tables of any size: rows in, the same rows with their vectors out, in a folder that a second run goes on with."""
