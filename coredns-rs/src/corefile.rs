//! The Corefile: server blocks of directives, each with arguments and perhaps a block of its own.

use anyhow::{Context, bail, ensure};

/// A directive of a server block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directive {
    pub(crate) name: String,
    pub(crate) args: Vec<String>,
    /// The lines of its block: a word and its arguments.
    pub(crate) block: Vec<Vec<String>>,
}

/// A server block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    /// Zones in lower case with a final dot, and ports.
    pub(crate) zones: Vec<(String, u16)>,
    pub(crate) directives: Vec<Directive>,
}

/// The words of a line; quotes hold words together, `#` starts a comment, `{$NAME}` is an environment variable.
fn words(line: &str) -> anyhow::Result<Vec<String>> {
    let (mut words, mut word, mut quoted, mut started) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                started = true;
            }
            '#' if !quoted && !started => break,
            c if c.is_whitespace() && !quoted => {
                if started {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
            }
            c => {
                word.push(c);
                started = true;
            }
        }
    }
    ensure!(!quoted, "unterminated quote");
    if started {
        words.push(word);
    }
    words.into_iter().map(expand).collect()
}

fn expand(mut word: String) -> anyhow::Result<String> {
    while let Some(start) = word.find("{$") {
        let end = word[start..].find('}').context("unterminated environment variable")? + start;
        let value = std::env::var(&word[start + 2..end]).unwrap_or_default();
        word.replace_range(start..=end, &value);
    }
    Ok(word)
}

/// Reads a Corefile. Zones without a port get `port`.
pub(crate) fn parse(text: &str, port: u16) -> anyhow::Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    // The server block, and the directive in it, that are open.
    let (mut open, mut inner) = (false, false);
    for (number, line) in text.lines().enumerate() {
        let mut step = || -> anyhow::Result<()> {
            let mut words = words(line)?;
            if words.is_empty() {
                return Ok(());
            }
            if words == ["}"] {
                ensure!(open, "unexpected '}}'");
                if inner {
                    inner = false
                } else {
                    open = false
                }
                return Ok(());
            }
            let opens = words.last().is_some_and(|w| w == "{");
            if opens {
                words.pop();
            }
            if !open {
                ensure!(opens, "expected '{{' after the zones of a server block");
                let zones: anyhow::Result<Vec<_>> = words.iter().map(|w| zone(w, port)).collect();
                blocks.push(Block { zones: zones?, directives: Vec::new() });
                open = true;
                return Ok(());
            }
            let block = blocks.last_mut().context("no server block")?;
            if inner {
                ensure!(!opens, "blocks cannot be nested that deep");
                block.directives.last_mut().context("no directive")?.block.push(words);
                return Ok(());
            }
            ensure!(!words.is_empty(), "a block without a name");
            let name = words.remove(0);
            block.directives.push(Directive { name, args: words, block: Vec::new() });
            inner = opens;
            Ok(())
        };
        step().with_context(|| format!("Corefile:{}", number + 1))?;
    }
    ensure!(!open, "Corefile: unexpected end of file: '}}' is missing");
    ensure!(!blocks.is_empty(), "Corefile: no server block");
    Ok(blocks)
}

fn zone(word: &str, port: u16) -> anyhow::Result<(String, u16)> {
    let word = word.trim_end_matches(',');
    let word = match word.split_once("://") {
        None => word,
        Some(("dns", rest)) => rest,
        Some((scheme, _)) => bail!("{scheme}:// is not supported"),
    };
    let (name, port) = match word.rsplit_once(':') {
        Some((name, text)) => (name, text.parse().with_context(|| format!("{text:?} is not a port"))?),
        None => (word, port),
    };
    Ok((absolute(name), port))
}

/// A name in lower case with a final dot.
pub(crate) fn absolute(name: &str) -> String {
    let name = name.trim_end_matches('.').to_lowercase();
    format!("{name}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corefiles_are_read() {
        let text = "# the cluster\n.:53 {\n  errors\n  health {\n    lameduck 5s\n  }\n  forward . \"/etc/resolv.conf\" # up\n}\nExample.org {\n  log\n}\n";
        let blocks = parse(text, 1053).unwrap();
        assert_eq!(blocks[0].zones, [(".".to_owned(), 53)]);
        assert_eq!(blocks[1].zones, [("example.org.".to_owned(), 1053)]);
        let names: Vec<_> = blocks[0].directives.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["errors", "health", "forward"]);
        assert_eq!(blocks[0].directives[1].block, [["lameduck", "5s"]]);
        assert_eq!(blocks[0].directives[2].args, [".", "/etc/resolv.conf"]);
    }

    #[test]
    fn mistakes_are_refused_with_their_line() {
        for (text, why) in [
            ("", "no server block"),
            (". {\n errors\n", "'}' is missing"),
            ("}\n", "Corefile:1"),
            ("tls://. {\n}\n", "Corefile:1"),
            (". {\n a \"b\n}\n", "Corefile:2"),
        ] {
            let e = format!("{:#}", parse(text, 53).unwrap_err());
            assert!(e.contains(why), "{text:?}: {e}");
        }
    }
}
