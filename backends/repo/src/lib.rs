//! The chunk repository on a Store: blobs, packs, index, manifests, snapshots
