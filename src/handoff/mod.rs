//! Replacing the running image.
