//! The header of an array: a Python dictionary of three entries.

use super::MAGIC;
use crate::{
    error::{Error, Result},
    format::file::{ElementType, TensorInfo},
};
use std::io::{self, Read};

/// The longest text, in bytes: NumPy's own limit.
const MAX_TEXT: usize = 10_000;
/// What an array's elements begin at a multiple of.
const ALIGNMENT: usize = 64;
/// Digits that NumPy leaves room for, so that the outermost axis may grow in place.
const GROWTH: usize = 21;

/// Element types: NumPy's letter, bytes, ours.
const TYPES: [(u8, usize, ElementType); 14] = [
    (b'f', 2, ElementType::F16),
    (b'f', 4, ElementType::F32),
    (b'f', 8, ElementType::F64),
    (b'c', 8, ElementType::C64),
    (b'c', 16, ElementType::C128),
    (b'i', 1, ElementType::I8),
    (b'i', 2, ElementType::I16),
    (b'i', 4, ElementType::I32),
    (b'i', 8, ElementType::I64),
    (b'u', 1, ElementType::U8),
    (b'u', 2, ElementType::U16),
    (b'u', 4, ElementType::U32),
    (b'u', 8, ElementType::U64),
    (b'b', 1, ElementType::Bool),
];

/// What an array is, without its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) element: ElementType,
    /// The highest byte of a number is the first.
    pub(super) big_endian: bool,
    /// The first axis is the innermost.
    pub(super) fortran: bool,
    pub(super) shape: Vec<usize>,
    /// Bytes before the elements.
    pub(super) len: usize,
}

impl Header {
    /// Reads as far as the elements.
    pub(super) fn read(from: &mut impl Read) -> Result<Self> {
        let ended = |error: io::Error| Error::format(0, format!("header: {error}"));
        let mut start = [0; 10];
        from.read_exact(&mut start).map_err(ended)?;
        let [magic @ .., major, minor, low, high] = start;
        if magic != MAGIC {
            return Err(Error::format(0, "not an array of NumPy"));
        }
        let (before, len) = match (major, minor) {
            (1, 0) => (start.len(), u32::from(u16::from_le_bytes([low, high]))),
            (2 | 3, 0) => {
                let mut upper = [0; 2];
                from.read_exact(&mut upper).map_err(ended)?;
                (start.len() + 2, u32::from_le_bytes([low, high, upper[0], upper[1]]))
            }
            _ => return Err(Error::format(MAGIC.len(), format!("version {major}.{minor} instead of 1.0, 2.0 or 3.0"))),
        };
        let len = len as usize;
        if len > MAX_TEXT {
            return Err(Error::format(MAGIC.len() + 2, format!("a header of {len} bytes, more than {MAX_TEXT}")));
        }
        let mut text = vec![0; len];
        from.read_exact(&mut text).map_err(ended)?;
        Parser { text: &text, at: 0, before }.header()
    }

    /// Whether the elements lie in another order than the logical one: more than one axis has more than one place.
    pub(super) fn is_transposed(&self) -> bool {
        self.fortran && self.shape.iter().filter(|&&size| size != 1).count() > 1
    }
}

/// The header of a tensor as NumPy writes it.
pub(super) fn write(tensor: &TensorInfo) -> Result<Vec<u8>> {
    let found = TYPES.iter().find(|(.., element)| *element == tensor.element);
    let Some(&(letter, size, _)) = found else {
        let allowed = "one of NumPy: f16, f32, f64, c64, c128, integers of 8 to 64 bits, bool";
        return Err(Error::argument("element type", tensor.element, allowed).in_tensor(&tensor.name));
    };
    let sizes: Vec<_> = tensor.shape.iter().map(usize::to_string).collect();
    let shape = match &*sizes {
        [one] => format!("({one},)"),
        sizes => format!("({})", sizes.join(", ")),
    };
    let order = if size == 1 { '|' } else { '<' };
    let letter = char::from(letter);
    let mut text = format!("{{'descr': '{order}{letter}{size}', 'fortran_order': False, 'shape': {shape}, }}");
    let room = sizes.first().map_or(0, |size| GROWTH.saturating_sub(size.len()));
    text.extend(std::iter::repeat_n(' ', room));
    // A line break ends it; where no padding is needed, NumPy adds 64 bytes.
    let bytes = |before: usize| {
        let len = text.len() + 1;
        (before, len + ALIGNMENT - (before + len) % ALIGNMENT)
    };
    let ((before, len), version) = match bytes(10) {
        short if u16::try_from(short.1).is_ok() => (short, 1),
        _ => (bytes(12), 2),
    };
    if len > MAX_TEXT {
        let found = format!("{} axes", tensor.shape.len());
        return Err(Error::argument("shape", found, "of a header of at most 10,000 bytes").in_tensor(&tensor.name));
    }
    let mut out = [MAGIC, &[version, 0], &(len as u32).to_le_bytes()].concat();
    out.truncate(before);
    out.extend(text.as_bytes());
    out.resize(before + len - 1, b' ');
    out.push(b'\n');
    Ok(out)
}

/// The small part of Python that headers are written in. It looks at each byte once and nests nothing.
struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    /// Bytes of the file before the text.
    before: usize,
}

impl<'a> Parser<'a> {
    fn header(mut self) -> Result<Header> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect(b'{')?;
        while !self.next_is(b'}') {
            let key = self.string()?;
            self.expect(b':')?;
            let twice = match key {
                b"descr" => descr.replace(self.element()?).is_some(),
                b"fortran_order" => fortran.replace(self.truth()?).is_some(),
                b"shape" => shape.replace(self.shape()?).is_some(),
                _ => return Err(self.wrong("an entry that is none of 'descr', 'fortran_order', 'shape'")),
            };
            if twice {
                return Err(self.wrong("an entry a second time"));
            }
            if !self.next_is(b',') {
                self.expect(b'}')?;
                break;
            }
        }
        self.skip_spaces();
        if self.at != self.text.len() {
            return Err(self.wrong("more than a dictionary"));
        }
        match (descr, fortran, shape) {
            (Some((element, big_endian)), Some(fortran), Some(shape)) => {
                Ok(Header { element, big_endian, fortran, shape, len: self.before + self.text.len() })
            }
            _ => Err(self.wrong("one of 'descr', 'fortran_order', 'shape' is missing")),
        }
    }

    fn wrong(&self, reason: &str) -> Error {
        Error::format(self.before + self.at, format!("header: {reason}"))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Takes this byte where it is the next.
    fn next_is(&mut self, byte: u8) -> bool {
        self.skip_spaces();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        match self.next_is(byte) {
            true => Ok(()),
            false => Err(self.wrong(&format!("'{}' needed", char::from(byte)))),
        }
    }

    fn take_while(&mut self, is: impl Fn(u8) -> bool) -> &'a [u8] {
        let start = self.at;
        while self.peek().is_some_and(&is) {
            self.at += 1;
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// A text in quotes, without escapes.
    fn string(&mut self) -> Result<&'a [u8]> {
        self.skip_spaces();
        let quote = self.peek().filter(|byte| matches!(byte, b'\'' | b'"'));
        let quote = quote.ok_or_else(|| self.wrong("a text in quotes needed"))?;
        self.at += 1;
        let text = self.take_while(|byte| byte != quote && byte != b'\\');
        match self.peek() {
            Some(byte) if byte == quote => self.at += 1,
            _ => return Err(self.wrong("a text without end")),
        }
        Ok(text)
    }

    /// An element type, and whether its highest byte is the first.
    fn element(&mut self) -> Result<(ElementType, bool)> {
        const ALLOWED: &str = "of numbers or bool, of one kind";
        self.skip_spaces();
        if self.peek() == Some(b'[') {
            return Err(Error::argument("dtype", "structured", ALLOWED));
        }
        let text = self.string()?;
        let unknown = || Error::argument("dtype", format!("{:?}", String::from_utf8_lossy(text)), ALLOWED);
        let [order, letter, size @ ..] = text else { return Err(unknown()) };
        let size = number(size).ok_or_else(unknown)?;
        let found = TYPES.iter().find(|(l, s, _)| l == letter && *s == size);
        let &(.., element) = found.ok_or_else(unknown)?;
        match order {
            b'<' => Ok((element, false)),
            b'>' => Ok((element, true)),
            b'|' if size == 1 => Ok((element, false)),
            _ => Err(unknown()),
        }
    }

    fn truth(&mut self) -> Result<bool> {
        self.skip_spaces();
        match self.take_while(|byte| byte.is_ascii_alphabetic()) {
            b"True" => Ok(true),
            b"False" => Ok(false),
            _ => Err(self.wrong("True or False needed")),
        }
    }

    fn shape(&mut self) -> Result<Vec<usize>> {
        let mut shape = Vec::new();
        self.expect(b'(')?;
        while !self.next_is(b')') {
            self.skip_spaces();
            let size = number(self.take_while(|byte| byte.is_ascii_digit()));
            shape.push(size.ok_or_else(|| self.wrong("a size below 2^64 needed"))?);
            // Python 2 wrote long numbers so.
            self.next_is(b'L');
            if !self.next_is(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Ok(shape)
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Header> {
        let len = (text.len() as u16).to_le_bytes();
        Header::read(&mut &[MAGIC, &[1, 0], &len, text.as_bytes()].concat()[..])
    }

    #[test]
    fn headers_are_read_as_python_wrote_them() {
        let header = read("{'descr': '>f4', 'fortran_order': True, 'shape': (3, 4), }      \n").unwrap();
        assert_eq!((header.element, header.big_endian, header.fortran), (ElementType::F32, true, true));
        assert_eq!((&header.shape[..], header.len), (&[3, 4][..], 10 + 65));
        assert!(header.is_transposed());
        let header = read("{\"shape\":(5L,),\"fortran_order\":True,\"descr\":\"|b1\"}").unwrap();
        assert_eq!((header.element, &header.shape[..], header.is_transposed()), (ElementType::Bool, &[5][..], false));
        assert!(read("{'descr': '<i8', 'fortran_order': False, 'shape': ()}").unwrap().shape.is_empty());
    }

    #[test]
    fn other_texts_are_refused_with_a_reason() {
        let whole = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }";
        for (from, to, reason) in [
            ("'<f4'", "'<V2'", "dtype is \"<V2\""),
            ("'<f4'", "'|O'", "dtype is \"|O\""),
            ("'<f4'", "'|f4'", "dtype"),
            ("'<f4'", "'<f'", "dtype"),
            ("'<f4'", "[('a', '<f4')]", "structured"),
            ("'<f4'", "'<f4", "dtype is \"<f4, \""),
            ("(3, 4), }", "(3, 4), 'shape", "a text without end"),
            ("(3, 4)", "(3, -4)", "a size"),
            ("(3, 4)", "(3, 18446744073709551616)", "a size"),
            ("(3, 4)", "[3, 4]", "'(' needed"),
            ("(3, 4)", "((((3", "a size"),
            ("False", "0", "True or False"),
            ("'shape'", "'descr'", "a text in quotes"),
            ("'shape': (3, 4)", "'fortran_order': True", "a second time"),
            ("'shape'", "'shapes'", "an entry that is none"),
            ("'shape': (3, 4), ", "", "missing"),
            ("}", "} {}", "more than a dictionary"),
            ("{", "", "'{' needed"),
        ] {
            let text = whole.replacen(from, to, 1);
            let found = read(&text).map(|_| ()).unwrap_err().to_string();
            assert!(found.contains(reason), "{text}: {found}");
        }
        let long = [MAGIC, &[2, 0], &u32::MAX.to_le_bytes()].concat();
        assert!(Header::read(&mut &long[..]).unwrap_err().to_string().contains("more than 10000"));
        let deep = "(".repeat(9_000);
        assert!(read(&format!("{{'descr': {deep}")).is_err());
        assert!(Header::read(&mut &b"\x93NUMPY\x04\0\0\0"[..]).unwrap_err().to_string().contains("version 4.0"));
    }

    #[test]
    fn what_is_written_is_read() {
        for shape in [&[][..], &[7], &[1 << 40, 0], &[3, 4, 5, 6, 7, 8]] {
            for (.., element) in TYPES {
                let bytes = write(&TensorInfo { name: "t".into(), element, shape: shape.into() }).unwrap();
                assert_eq!(bytes.len() % ALIGNMENT, 0);
                let header = Header::read(&mut &bytes[..]).unwrap();
                let expected =
                    Header { element, big_endian: false, fortran: false, shape: shape.into(), len: bytes.len() };
                assert_eq!(header, expected);
            }
        }
        let odd = TensorInfo { name: "odd".into(), element: ElementType::Bf16, shape: vec![1] };
        assert_eq!(write(&odd).unwrap_err().tensor(), Some("odd"));
        let deep = TensorInfo { name: "deep".into(), element: ElementType::U8, shape: vec![1; 4_000] };
        assert_eq!(write(&deep).unwrap_err().tensor(), Some("deep"));
    }
}
