"""Style, statistics, published numbers, and claims."""
