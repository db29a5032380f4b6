"""Who may do what: bearer tokens, what each grants, and the file that lists them."""
