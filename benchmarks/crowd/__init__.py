"""A crowd: 100,000 made-up concepts, planned, remembered, looked for by their headers."""
