//! Policies that windlass brings.

use crate::{Kind, MetalError, Result};

/// The policy of a tenant that has set none.
pub const DEFAULT: &str = "least_excess";

/// Names and texts.
pub static SHIPPED: &[(&str, &str)] = &[
    (DEFAULT, LEAST_EXCESS),
    ("spread", SPREAD),
    ("cheapest", CHEAPEST),
    ("keep_gpu_for_gpu", KEEP_GPU_FOR_GPU),
];

/// As little left over as can be.
const LEAST_EXCESS: &str = r#"
name = "least_excess"
"#;

/// Far apart first, little left over second.
const SPREAD: &str = r#"
name = "spread"
[weights]
spread = 10.0
"#;

/// The lowest price class first, little left over second.
const CHEAPEST: &str = r#"
name = "cheapest"
[weights]
price = 100.0
"#;

/// No machine with GPUs for a node that wants none.
const KEEP_GPU_FOR_GPU: &str = r#"
name = "keep_gpu_for_gpu"
[[rules]]
name = "GPUs are kept for those who want them"
allow = "machine.gpus == 0 || cluster.gpus > 0"
required = true
"#;

/// A shipped policy's text.
///
/// # Errors
/// `NotFound`.
pub fn text(name: &str) -> Result<&'static str> {
    let found = SHIPPED.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text).ok_or_else(|| {
        let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
        let shown: String = name.chars().take(64).collect();
        MetalError::new(
            Kind::NotFound,
            format!(
                "no policy '{}' is shipped; there are {}; nothing was selected",
                shown.escape_debug(),
                names.join(", ")
            ),
        )
    })
}
