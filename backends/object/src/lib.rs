//! Store over the object_store crate: local files, Google Cloud Storage, Azure
