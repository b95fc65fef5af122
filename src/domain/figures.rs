//! Numbers as people read them.

/// `1,204`
pub fn grouped(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let shown = [0, 999, 1_000, 12_345, 900_000, u64::MAX].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "12,345", "900,000", "18,446,744,073,709,551,615"]);
    }
}
