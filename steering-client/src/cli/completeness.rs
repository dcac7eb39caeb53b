//! Whether lines typed so far are a whole Python cell. A guess for the prompt only: the engine has the last word.

/// What a scan over the text finds open at its end.
#[derive(Default)]
struct Open {
    /// Brackets opened and not closed.
    brackets: usize,
    /// Inside a triple-quoted string with this quote.
    string: Option<char>,
    /// The last character joins the next line.
    backslash: bool,
    /// Some line outside brackets ends with a colon.
    block: bool,
    /// The last character that is neither space nor comment.
    last: Option<char>,
}

/// Whether `text` can be sent: nothing is open, and a block has ended with an empty line.
#[must_use]
pub fn is_complete(text: &str) -> bool {
    let open = scan(text);
    if open.brackets > 0 || open.string.is_some() || open.backslash {
        return false;
    }
    if text.trim_start().starts_with("%%") || open.block || open.last == Some(':') {
        return text.ends_with('\n');
    }
    // A decorator waits for its function.
    !text
        .lines()
        .last()
        .is_some_and(|line| line.trim_start().starts_with('@'))
}

fn scan(text: &str) -> Open {
    let mut open = Open::default();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if character == '#' {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
            continue;
        }
        if character == '"' || character == '\'' {
            open.last = Some(character);
            match skip_string(rest, character) {
                Some(after) => rest = after,
                None => {
                    open.string = Some(character);
                    return open;
                }
            }
            continue;
        }
        open.backslash = character == '\\' && rest[1..].trim_end_matches('\n').is_empty();
        match character {
            '\n' if open.brackets == 0 => open.block |= open.last == Some(':'),
            '(' | '[' | '{' => open.brackets += 1,
            ')' | ']' | '}' => open.brackets = open.brackets.saturating_sub(1),
            _ => {}
        }
        if !character.is_whitespace() {
            open.last = Some(character);
        }
        rest = &rest[character.len_utf8()..];
    }
    open
}

/// What follows a string. `None`: a triple-quoted one that is open. A plain one ends with its line at the latest.
fn skip_string(text: &str, quote: char) -> Option<&str> {
    let triple: String = [quote; 3].iter().collect();
    let (long, end) = if text.starts_with(&triple) {
        (true, triple.as_str())
    } else {
        (false, &triple[..1])
    };
    let mut rest = &text[end.len()..];
    while let Some(character) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix(end) {
            return Some(after);
        }
        if character == '\n' && !long {
            return Some(rest);
        }
        rest = &rest[character.len_utf8()..];
        if character == '\\' {
            rest = rest
                .chars()
                .next()
                .map_or("", |escaped| &rest[escaped.len_utf8()..]);
        }
    }
    if long { None } else { Some("") }
}
