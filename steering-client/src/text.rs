//! Text out of pieces of bytes that need not end between characters.

/// The unfinished character at the end of what came so far.
#[derive(Debug, Default)]
pub(crate) struct Utf8Pieces {
    tail: Vec<u8>,
}

impl Utf8Pieces {
    /// The text up to the last whole character; what is no UTF-8 becomes U+FFFD.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> String {
        if self.tail.is_empty()
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return text.to_owned();
        }
        self.tail.extend_from_slice(bytes);
        let whole = self.tail.len() - unfinished(&self.tail);
        let text = String::from_utf8_lossy(&self.tail[..whole]).into_owned();
        self.tail.drain(..whole);
        text
    }

    /// What is left when nothing more comes.
    pub(crate) fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.tail)).into_owned()
    }
}

/// How many bytes at the end begin a character that may still be completed.
fn unfinished(bytes: &[u8]) -> usize {
    let last = bytes
        .utf8_chunks()
        .last()
        .map_or(&[][..], |chunk| chunk.invalid());
    match std::str::from_utf8(last) {
        Err(error) if error.error_len().is_none() && bytes.ends_with(last) => last.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let mut utf8 = Utf8Pieces::default();
        let mut texts: Vec<String> = pieces.iter().map(|piece| utf8.take(piece)).collect();
        texts.push(utf8.finish());
        texts
    }

    #[test]
    fn a_character_cut_anywhere_comes_whole() {
        let text = "aé€𝄞z".as_bytes();
        for cut in 0..=text.len() {
            assert_eq!(
                read(&[&text[..cut], &text[cut..]]).concat(),
                "aé€𝄞z",
                "cut at {cut}"
            );
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(read(&bytes).concat(), "aé€𝄞z");
    }

    #[test]
    fn what_is_no_text_is_marked_and_does_not_wait() {
        assert_eq!(read(&[b"a\xffb"]), ["a\u{fffd}b", ""]);
        assert_eq!(read(&[b"a\xe2\x82"]), ["a", "\u{fffd}"]);
        assert_eq!(read(&[b"a\xe2", b"b"]), ["a", "\u{fffd}b", ""]);
    }
}
