"""A cast: many concepts, trained one by one and merged at once. Who it is, who gets which slot, what is done."""
