"""Reading what a stranger wrote: bytes, JSON and patterns cost what their size says, whatever stands in them."""
