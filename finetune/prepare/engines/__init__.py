"""Where the rows are read and compared: in processes of this machine, or on a Ray cluster."""
