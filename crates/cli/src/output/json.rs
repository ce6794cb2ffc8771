//! JSON that keeps its order and gets line breaks.

/// Re-indents valid JSON: four spaces a level, as Docker's `inspect` shows it.
pub fn indent(json: &str) -> String {
    indent_by(json, "    ")
}

/// The same, by any white space a level.
pub fn indent_by(json: &str, unit: &str) -> String {
    let mut output = String::new();
    let mut depth = 0_usize;
    let mut characters = json.chars().filter(JsonSpace::default().keep()).peekable();
    let mut in_string = false;
    while let Some(character) = characters.next() {
        if in_string {
            output.push(character);
            match character {
                '\\' => output.extend(characters.next()),
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match character {
            '"' => {
                in_string = true;
                output.push(character);
            }
            '{' | '[' => {
                output.push(character);
                match characters.peek() {
                    Some('}' | ']') => output.extend(characters.next()),
                    _ => {
                        depth += 1;
                        new_line(&mut output, depth, unit);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut output, depth, unit);
                output.push(character);
            }
            ',' => {
                output.push(character);
                new_line(&mut output, depth, unit);
            }
            ':' => output.push_str(": "),
            other => output.push(other),
        }
    }
    output
}

fn new_line(output: &mut String, depth: usize, unit: &str) {
    output.push('\n');
    output.extend(std::iter::repeat_n(unit, depth));
}

/// Tells space between values from space within strings.
#[derive(Default)]
struct JsonSpace {
    in_string: bool,
    is_escaped: bool,
}

impl JsonSpace {
    fn keep(mut self) -> impl FnMut(&char) -> bool {
        move |character| {
            if !self.in_string {
                self.in_string = *character == '"';
                return !character.is_ascii_whitespace();
            }
            match *character {
                _ if self.is_escaped => self.is_escaped = false,
                '\\' => self.is_escaped = true,
                '"' => self.in_string = false,
                _ => {}
            }
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_strings_stay() {
        let json = r#"[{"b": 1,"a":{ },"c":[ ],"d":["x, y: {z}","\"q\\"]}]"#;
        let indented = "[\n    {\n        \"b\": 1,\n        \"a\": {},\n        \"c\": [],\n        \"d\": [\n            \
                        \"x, y: {z}\",\n            \"\\\"q\\\\\"\n        ]\n    }\n]";
        assert_eq!(indent(json), indented);
    }
}
