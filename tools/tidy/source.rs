//! Rust source as the rules see it: comments and strings blanked out, functions measured.

use std::iter;

/// A source file's code, without what comments and literals say.
#[derive(Clone, Debug)]
pub struct Source {
    code: String,
}

/// A function with a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line on which its `fn` stands, from 1.
    pub line: usize,
    /// Lines from its `fn` to its closing brace, both included.
    pub lines: usize,
}

impl Source {
    /// Takes Rust source. Comments, strings and characters become blanks; lines stay.
    pub fn new(text: &str) -> Self {
        let mut code = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let (bytes, keep) = piece(rest, code.chars().next_back());
            let (head, tail) = rest.split_at(bytes);
            if keep {
                code.push_str(head);
            } else {
                code.extend(head.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            }
            rest = tail;
        }
        Self { code }
    }

    /// The code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Words (identifiers and keywords) with their lines, from 1.
    pub fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().flat_map(|(index, line)| {
            line.split(|c: char| !is_word(c)).filter(|w| !w.is_empty()).map(move |w| (index + 1, w))
        })
    }

    /// Modules of std that are named, as `std::fs` or within `std::{fs, io}`, with their lines.
    pub fn std_modules(&self) -> Vec<(usize, &str)> {
        self.code
            .match_indices("std::")
            .filter(|(at, _)| !self.code[..*at].ends_with(is_word))
            .flat_map(|(at, path)| {
                let line = self.line_of(at);
                first_segments(&self.code[at + path.len()..]).map(move |name| (line, name))
            })
            .collect()
    }

    /// Functions with a body, in the order of their `fn`. A body is told by counting braces.
    pub fn functions(&self) -> Vec<Function> {
        let starts = self.code.match_indices("fn ");
        starts.filter_map(|(at, _)| self.function(at)).collect()
    }

    fn function(&self, at: usize) -> Option<Function> {
        if self.code[..at].ends_with(is_word) {
            return None;
        }
        let behind = self.code[at + 3..].trim_start();
        let name: String = behind.chars().take_while(|c| is_word(*c)).collect();
        if name.is_empty() {
            return None; // the type of a function
        }
        let open = at + self.code[at..].find(['{', ';'])?;
        let body = self.code[open..].strip_prefix('{')?;
        let mut depth = 1;
        let end = body.find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        })?;
        let lines = self.code[at..open + 1 + end].matches('\n').count() + 1;
        Some(Function { name, line: self.line_of(at), lines })
    }

    fn line_of(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }
}

/// The names that a path behind `std::` begins with: one, or those of a group.
fn first_segments(path: &str) -> impl Iterator<Item = &str> {
    let group = path.strip_prefix('{').map(|group| {
        let mut depth = 1;
        let end = group.find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        });
        &group[..end.unwrap_or(group.len())]
    });
    let mut depth = 0;
    let parts = group.unwrap_or(path).split(move |c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let parts = parts.take(if group.is_some() { usize::MAX } else { 1 });
    parts.map(|part| {
        let part = part.trim_start();
        &part[..part.find(|c| !is_word(c)).unwrap_or(part.len())]
    })
}

/// The length in bytes of the next piece, and whether it is code.
fn piece(rest: &str, before: Option<char>) -> (usize, bool) {
    let inside_word = before.is_some_and(is_word);
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), false);
    }
    if !inside_word && let Some(bytes) = raw_string(rest) {
        return (bytes, false);
    }
    if rest.starts_with('"') {
        return (quoted(rest, '"'), false);
    }
    if rest.starts_with('\'') && is_character(rest) {
        return (quoted(rest, '\''), false);
    }
    (rest.chars().next().map_or(0, char::len_utf8), true)
}

/// A character literal rather than a lifetime.
fn is_character(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    matches!((chars.next(), chars.next()), (Some('\\'), _) | (Some(_), Some('\'')))
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = rest[1..].find(|c| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or(rest.len(), |end| end + 2)
}

fn raw_string(rest: &str) -> Option<usize> {
    let behind = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = behind.len() - behind.trim_start_matches('#').len();
    let body = behind[hashes..].strip_prefix('"')?;
    let end: String = iter::once('"').chain(iter::repeat_n('#', hashes)).collect();
    let start = rest.len() - body.len();
    Some(body.find(&end).map_or(rest.len(), |at| start + at + end.len()))
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        let behind = &rest[at..];
        if behind.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if behind.starts_with("*/") {
            depth -= 1;
            at += 2;
        } else if let Some(c) = behind.chars().next() {
            at += c.len_utf8();
        } else {
            return at;
        }
        if depth == 0 {
            return at;
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new(text).code().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_say_nothing() {
        assert_eq!(code("a // unsafe\nb /* x /* y */ unsafe */ c"), "a b c");
        assert_eq!(code(r#"f("unsafe \" still", 'u', '\'', b"x");"#), "f( , , , b );");
        assert_eq!(code(r###"f(r#"un"safe"#, br"x")"###), "f( , )");
        assert_eq!(
            code("fn f<'a>(x: &'a str) -> &'a str { x }"),
            "fn f<'a>(x: &'a str) -> &'a str { x }"
        );
    }

    #[test]
    fn lines_stay_where_they_are() {
        let source = Source::new("/* a\nb */ c\n\"d\ne\" f");
        assert_eq!(source.words().collect::<Vec<_>>(), [(2, "c"), (4, "f")]);
    }

    #[test]
    fn modules_of_std_in_groups() {
        let source = Source::new("use std::{fs::{self, File}, io, thread};\nstd::net::lookup();");
        let found: Vec<_> = source.std_modules();
        assert_eq!(found, [(1, "fs"), (1, "io"), (1, "thread"), (2, "net")]);
    }

    #[test]
    fn functions_are_measured() {
        let source = Source::new("trait T { fn a(&self); }\nfn b() {\n    if x { y }\n}\n");
        let b = Function { name: String::from("b"), line: 2, lines: 3 };
        assert_eq!(source.functions(), [b]);
    }
}
