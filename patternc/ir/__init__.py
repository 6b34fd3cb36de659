"""The pattern IR: typed, frozen, with one meaning (`evaluate`)."""
