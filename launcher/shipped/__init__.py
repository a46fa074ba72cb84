"""What ships beside the code and is made from tables: templates, subgraphs and translations."""
