//! The snapshot concern: disks into the chunk repository, and back by their difference
