"""What people do who want in: each attack bounded, from another of loopback's addresses, against a detector here."""
