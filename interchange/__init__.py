"""Other formats, in and out, a file each. Every conversion ends with a report of what was compared."""
