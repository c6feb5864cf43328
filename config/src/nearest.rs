//! The nearest known name to one that isn't known.

/// Least similarity (0 to 1) at which a suggestion helps more than it confuses; found by trying misspellings in the tests.
const SIMILARITY_MIN: f64 = 0.6;

/// The known name most like `text`, when one is like enough.
pub(crate) fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    known
        .map(|name| (strsim::normalized_damerau_levenshtein(&text, name), name))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// The known key most like `path`: as a whole, or the same last part under another table.
pub(crate) fn nearest_key(path: &str) -> Option<&'static str> {
    let leaf = path.rsplit('.').next().unwrap_or(path);
    let whole = nearest(path, crate::keys().map(|k| k.path));
    let moved = || crate::keys().find(|k| k.leaf() == leaf).map(|k| k.path);
    let alike = || {
        nearest(leaf, crate::keys().map(crate::Key::leaf))
            .and_then(|near| crate::keys().find(|k| k.leaf() == near))
            .map(|k| k.path)
    };
    whole.or_else(moved).or_else(alike)
}
