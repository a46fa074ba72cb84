"""A reader of genes: which value of each gene a picture of one drawn person shows. It judges who was drawn."""
