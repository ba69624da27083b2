#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

#[test]
fn plain_paths_are_split_and_decoded() {
    for (path, expected) in [
        ("/", vec![]),
        ("/v1", vec!["v1"]),
        ("/v1/", vec!["v1"]),
        ("/v1/chat/completions", vec!["v1", "chat", "completions"]),
        ("/a%20b/c%C3%A9", vec!["a b", "cé"]),
        ("/a.b/..c/...", vec!["a.b", "..c", "..."]),
        ("/100%25", vec!["100%"]),
        ("/%25zz", vec!["%zz"]),
        ("/{x}/a=b,c@d:e", vec!["{x}", "a=b,c@d:e"]),
    ] {
        assert_eq!(segments(path).unwrap(), expected, "{path}");
    }
}

#[test]
fn whatever_can_be_read_in_two_ways_is_refused() {
    use PathError::*;
    for (path, expected) in [
        ("", NotAbsolute),
        ("*", NotAbsolute),
        ("v1", NotAbsolute),
        ("//", EmptySegment),
        ("///", EmptySegment),
        ("//v1", EmptySegment),
        ("/v1//chat", EmptySegment),
        ("/v1//", EmptySegment),
        ("/.", DotSegment),
        ("/v1/../admin", DotSegment),
        ("/v1/./chat", DotSegment),
        ("/v1/..", DotSegment),
        ("/v1/%2e%2e/admin", EncodedDelimiter),
        ("/v1/%2E./admin", EncodedDelimiter),
        ("/v1%2fchat", EncodedDelimiter),
        ("/v1%2Fchat", EncodedDelimiter),
        ("/v1%5cchat", EncodedDelimiter),
        ("/v1/chat%3bx", EncodedDelimiter),
        ("/v1/%252e%252e", EncodedDelimiter),
        ("/v1%252fchat", EncodedDelimiter),
        ("/v1\\chat", Character),
        ("/v1/chat;x=1", Character),
        ("/v1/;/chat", Character),
        ("/v1/%00", Character),
        ("/v1/%0d%0a", Character),
        ("/v1/%7f", Character),
        ("/v1/é", Character),
        ("/v1/%", Encoding),
        ("/v1/%2", Encoding),
        ("/v1/%zz", Encoding),
        ("/v1/%ff", Encoding),
        ("/v1/%c0%ae", Encoding),
    ] {
        assert_eq!(segments(path), Err(expected), "{path}");
    }
}

proptest! {
    /// No accepted path holds a segment that would change the meaning of the path when it is joined again.
    #[test]
    fn accepted_segments_are_inert(path in "/[a-z./%0-9A-F;\\\\]{0,12}") {
        if let Ok(segments) = segments(&path) {
            for segment in segments {
                prop_assert!(!segment.is_empty() && segment != "." && segment != "..");
                prop_assert!(!segment.contains(['/', '\\', ';', '\0']));
            }
        }
    }
}
