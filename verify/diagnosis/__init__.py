"""Which known rule has the law that was found, and where that law first departs from the target's."""
