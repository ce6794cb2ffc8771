//! What a stage says while another one has the word.

use std::collections::VecDeque;

/// More than this of what commands have written is not kept: the oldest goes. Steps are always told.
const LIMIT_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Held {
    /// Texts, and whether a command wrote them.
    texts: VecDeque<(String, bool)>,
    output_bytes: usize,
    lost_bytes: usize,
}

impl Held {
    pub(super) fn push(&mut self, text: String, is_output: bool) {
        if is_output {
            self.output_bytes += text.len();
        }
        self.texts.push_back((text, is_output));
        while self.output_bytes > LIMIT_BYTES {
            let oldest = self.texts.iter().position(|(_, is_output)| *is_output);
            let Some((text, _)) = oldest.and_then(|at| self.texts.remove(at)) else { break };
            self.output_bytes -= text.len();
            self.lost_bytes += text.len();
        }
    }

    /// All of it; nothing is left.
    pub(super) fn take(&mut self) -> impl Iterator<Item = String> + use<> {
        let Self { texts, lost_bytes, .. } = std::mem::take(self);
        let lost = (lost_bytes > 0).then(|| format!("[the first {lost_bytes} bytes of output are not shown]\n"));
        lost.into_iter().chain(texts.into_iter().map(|(text, _)| text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_kept_and_the_end_of_what_was_written() {
        let mut held = Held::default();
        held.push("Step 1\n".into(), false);
        for number in 0..3 {
            held.push(format!("{number}").repeat(LIMIT_BYTES / 2), true);
        }
        held.push("Step 2\n".into(), false);
        let texts: Vec<String> = held.take().collect();
        assert_eq!(texts.len(), 5);
        assert_eq!(texts[0], "[the first 524288 bytes of output are not shown]\n");
        assert_eq!((texts[1].as_str(), texts[4].as_str()), ("Step 1\n", "Step 2\n"));
        assert!(texts[2].starts_with('1') && texts[3].starts_with('2'));
        assert_eq!(held.take().count(), 0);
    }
}
