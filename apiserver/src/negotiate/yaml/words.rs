//! Why YAML cannot be read, in the words of Go's reader.

/// What the reader said of a text, as Go's says it.
pub(super) fn of(told: &str, text: &str) -> String {
    let told = first_line(told);
    let (line, why) = match place(told) {
        Some((line, _)) => (line, told.split_once(": ").map_or(told, |(_, why)| why)),
        None => (0, told),
    };
    if why.contains("unclosed quote") {
        // Its end is looked for up to the end of the text, where no line is counted yet.
        let lines = text.matches('\n').count();
        let at = if lines == 0 { String::new() } else { format!("line {}: ", lines + 1) };
        return format!("yaml: {at}found unexpected end of stream");
    }
    if let Some(bracket) = why.split("unclosed bracket '").nth(1).and_then(|rest| rest.chars().next()) {
        let lines = text.lines().count();
        let missing = match text.trim_end().chars().last() {
            None | Some('[' | '{' | ',' | ':') => "node content",
            _ if bracket == '{' => "',' or '}'",
            _ => "',' or ']'",
        };
        return format!("yaml: line {lines}: did not find expected {missing}");
    }
    match line {
        0 => format!("yaml: {why}"),
        line => format!("yaml: line {line}: {why}"),
    }
}

fn first_line(told: &str) -> &str {
    let line = told.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line)
}

/// Line and column that an error begins with.
pub(super) fn place(told: &str) -> Option<(usize, usize)> {
    let rest = first_line(told).strip_prefix("line ")?;
    let (line, rest) = rest.split_once(" column ")?;
    let (column, _) = rest.split_once(':')?;
    Some((line.parse().ok()?, column.parse().ok()?))
}

/// Where a line and column are in a text, both counted from one.
pub(super) fn offset(text: &str, line: usize, column: usize) -> Option<usize> {
    let before: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let rest = text.get(before..)?;
    let within = rest.char_indices().nth(column.checked_sub(1)?).map_or(rest.len(), |(at, _)| at);
    Some(before + within)
}

#[cfg(test)]
mod tests {
    use super::super::read_body;

    #[test]
    fn errors_read_as_those_of_go() {
        for (text, why) in [
            ("x: [", "yaml: line 1: did not find expected node content"),
            ("{\"a\":", "yaml: line 1: did not find expected node content"),
            ("{\"a\": \"b\"", "yaml: line 1: did not find expected ',' or '}'"),
            ("{\"a\": \"b", "yaml: found unexpected end of stream"),
            ("a\0b", "yaml: control characters are not allowed"),
        ] {
            assert_eq!(read_body(text.as_bytes()).unwrap_err(), why, "{text}");
        }
    }

    #[test]
    fn what_follows_the_first_document_is_not_read() {
        let read = read_body(br#"{"a": 1}{"a": 2}"#).unwrap();
        assert_eq!(read.value.to_json(), br#"{"a":1}"#);
    }
}
