//! Access histories of shared memory, one per 4-byte word, but stored and updated once per 16 bytes
//! as long as all four words have the same: nearly every access covers 16 aligned bytes.

use std::ops::Range;

/// Bytes of a row.
pub(crate) const ROW: usize = 16;
/// Words of a row.
const WORDS: usize = 4;

/// The history of a word.
pub(crate) trait History: Copy + Default + PartialEq {
    /// Whether nothing about the word is kept elsewhere, under its own number.
    fn stands_alone(&self) -> bool;
}

/// Histories by word, one per row where all its words have the same.
#[derive(Debug)]
pub(crate) struct Histories<T> {
    rows: Vec<T>,
    /// By row: the history is in `rows`, not in `words`.
    joined: Vec<bool>,
    /// Of the rows that are not joined; empty before the first of them.
    words: Vec<T>,
}

impl<T: History> Histories<T> {
    /// Fresh histories for `bytes` of memory, a multiple of [`ROW`].
    pub(crate) fn new(bytes: usize) -> Histories<T> {
        let rows = bytes / ROW;
        Histories { rows: vec![T::default(); rows], joined: vec![true; rows], words: Vec::new() }
    }

    /// All fresh again.
    pub(crate) fn reset(&mut self) {
        self.rows.fill(T::default());
        self.joined.fill(true);
    }

    /// Number of words.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() * WORDS
    }

    /// The history of a word.
    #[cfg(test)]
    pub(crate) fn get(&self, word: usize) -> &T {
        match self.joined[word / WORDS] {
            true => &self.rows[word / WORDS],
            false => &self.words[word],
        }
    }

    /// The history of a word, and the first word after it that may have another one.
    #[inline(always)]
    pub(crate) fn run(&self, word: usize) -> (&T, usize) {
        match self.joined[word / WORDS] {
            true => (&self.rows[word / WORDS], (word / WORDS + 1) * WORDS),
            false => (&self.words[word], word + 1),
        }
    }

    /// The words of a range whose history is not fresh.
    pub(crate) fn used(&self, words: Range<usize>) -> impl Iterator<Item = (usize, &T)> + '_ {
        let fresh = T::default();
        let mut next = words.start;
        std::iter::from_fn(move || {
            while next < words.end {
                let (word, (history, other)) = (next, self.run(next));
                if *history != fresh {
                    next += 1;
                    return Some((word, history));
                }
                next = other;
            }
            None
        })
    }

    /// The history that the row at an aligned address has as a whole, if it has one.
    #[inline(always)]
    pub(crate) fn row(&mut self, at: usize) -> Option<&mut T> {
        let row = at / ROW;
        if self.joined[row] || self.join(row) {
            Some(&mut self.rows[row])
        } else {
            None
        }
    }

    /// Calls `change` with the history of every word of a range of bytes, once per row where its
    /// words share one.
    #[inline(always)]
    pub(crate) fn for_range(&mut self, at: usize, bytes: usize, mut change: impl FnMut(&mut T)) {
        if at % ROW == 0 && bytes % ROW == 0 {
            if let Some(rows) = self.whole_rows(at..at + bytes) {
                return rows.iter_mut().for_each(change);
            }
        }
        let (mut word, end) = (at / 4, (at + bytes).div_ceil(4));
        while word < end {
            let next = (word / WORDS * WORDS + WORDS).min(end);
            match self.row(4 * word) {
                Some(row) if next - word == WORDS => change(row),
                _ => self.split(word..next).iter_mut().for_each(&mut change),
            }
            word = next;
        }
    }

    /// Calls `change` with every history.
    pub(crate) fn for_each(&mut self, mut change: impl FnMut(&mut T)) {
        for (row, joined) in self.joined.iter().enumerate() {
            match joined {
                true => change(&mut self.rows[row]),
                false => self.words[WORDS * row..][..WORDS].iter_mut().for_each(&mut change),
            }
        }
    }

    /// The history of a row by its number, if it has one as a whole already.
    #[inline(always)]
    pub(crate) fn joined(&self, row: u32) -> Option<&T> {
        self.joined[row as usize].then(|| &self.rows[row as usize])
    }

    /// The same, to be changed.
    #[inline(always)]
    pub(crate) fn joined_mut(&mut self, row: u32) -> Option<&mut T> {
        self.joined[row as usize].then(|| &mut self.rows[row as usize])
    }

    /// The rows of an aligned range of bytes, if each of them has one history as a whole.
    #[inline(always)]
    pub(crate) fn whole_rows(&mut self, bytes: Range<usize>) -> Option<&mut [T]> {
        let rows = bytes.start / ROW..bytes.end / ROW;
        let whole = self.joined[rows.clone()].iter().all(|&joined| joined)
            || rows.clone().all(|row| self.joined[row] || self.join(row));
        whole.then(|| &mut self.rows[rows])
    }

    /// A word, to be changed by itself.
    #[inline(always)]
    pub(crate) fn word(&mut self, word: usize) -> &mut T {
        if self.joined[word / WORDS] {
            self.split_row(word / WORDS);
        }
        &mut self.words[word]
    }

    /// The words of a range, to be changed one by one.
    #[inline(always)]
    pub(crate) fn split(&mut self, words: Range<usize>) -> &mut [T] {
        for row in words.start / WORDS..words.end.div_ceil(WORDS) {
            if self.joined[row] {
                self.split_row(row);
            }
        }
        &mut self.words[words]
    }

    #[inline(never)]
    fn split_row(&mut self, row: usize) {
        if self.words.is_empty() {
            self.words = vec![T::default(); self.len()];
        }
        self.words[WORDS * row..][..WORDS].fill(self.rows[row]);
        self.joined[row] = false;
    }

    /// Joins the words of a row if they are the same again.
    #[inline(never)]
    fn join(&mut self, row: usize) -> bool {
        let [first, rest @ ..] = &self.words[WORDS * row..][..WORDS] else { return false };
        let same = first.stands_alone() && rest.iter().all(|word| word == first);
        if same {
            (self.rows[row], self.joined[row]) = (*first, true);
        }
        same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl History for u32 {
        fn stands_alone(&self) -> bool {
            *self != 3
        }
    }

    #[test]
    fn rows_split_when_a_word_changes_and_join_when_all_agree_again() {
        let mut histories: Histories<u32> = Histories::new(64);
        *histories.row(16).unwrap() = 7;
        assert_eq!([4, 5, 6, 7, 8].map(|word| *histories.get(word)), [7, 7, 7, 7, 0]);
        histories.split(5..6)[0] = 9;
        assert_eq!([4, 5, 6, 7].map(|word| *histories.get(word)), [7, 9, 7, 7]);
        assert!(histories.row(16).is_none());
        histories.split(4..8).fill(3);
        assert!(histories.row(16).is_none());
        histories.split(4..8).fill(5);
        assert_eq!(histories.row(16), Some(&mut 5));
        assert_eq!(*histories.get(7), 5);
        let used: Vec<_> = histories.used(2..13).collect();
        assert_eq!(used, [(4, &5), (5, &5), (6, &5), (7, &5)]);
        histories.reset();
        assert_eq!((*histories.get(5), histories.len()), (0, 16));
    }
}
