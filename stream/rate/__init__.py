"""Rate control: which quantizer step the next frame gets, and when it may go. No socket, no clock."""
