//! What a simulated display shows: text, white on black, as a PNG that people and programs can read.
//!
//! The picture is a function of the text: no compression, no time stamp, no dependency. What is on it is the guest's part.

mod font;

/// Characters in a line.
pub(super) const COLUMNS: usize = 53;
/// Lines on the display.
pub(super) const LINES: usize = 25;
/// Pixels of a character with its gap, at single size.
const CELL: (usize, usize) = (font::WIDTH + 1, font::HEIGHT + 1);
/// Every dot of a character is so many pixels wide and high.
const SCALE: usize = 2;
/// Width and height in pixels.
pub(super) const SIZE: (usize, usize) = (640, 400);

const _: () = assert!(COLUMNS * CELL.0 * SCALE <= SIZE.0 && LINES * CELL.1 * SCALE <= SIZE.1);

/// The lines as a picture; what does not fit is cut off.
pub(super) fn png(lines: &[String]) -> Vec<u8> {
    encode(&rows(lines))
}

/// The same as a PPM: a header, and three bytes for every pixel.
pub(super) fn ppm(lines: &[String]) -> Vec<u8> {
    let mut picture = format!("P6\n{} {}\n255\n", SIZE.0, SIZE.1).into_bytes();
    for row in rows(lines).chunks(SIZE.0 / 8 + 1) {
        for dots in &row[1..] {
            picture.extend((0..8).flat_map(|bit| [if dots << bit & 0x80 == 0 { 0 } else { 0xff }; 3]));
        }
    }
    picture
}

/// One bit for every pixel, each row behind a byte that is 0.
fn rows(lines: &[String]) -> Vec<u8> {
    let stride = SIZE.0 / 8;
    // Each row of pixels begins with its filter, which is none.
    let mut rows = vec![0; (stride + 1) * SIZE.1];
    for (row, line) in lines.iter().take(LINES).enumerate() {
        for (column, c) in line.chars().take(COLUMNS).enumerate() {
            for (x, dots) in font::glyph(c).iter().enumerate() {
                for y in (0..font::HEIGHT).filter(|y| dots >> y & 1 == 1) {
                    for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                        let at_x = (column * CELL.0 + x) * SCALE + dx;
                        let at_y = (row * CELL.1 + y) * SCALE + dy;
                        rows[at_y * (stride + 1) + 1 + at_x / 8] |= 0x80 >> (at_x % 8);
                    }
                }
            }
        }
    }
    rows
}

/// A PNG (RFC 2083) of one bit per pixel around rows with their filters.
fn encode(rows: &[u8]) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend((SIZE.0 as u32).to_be_bytes());
    header.extend((SIZE.1 as u32).to_be_bytes());
    // One bit, greyscale, deflate, the five filters, not interlaced.
    header.extend([1, 0, 0, 0, 0]);
    chunk(&mut png, b"IHDR", &header);
    chunk(&mut png, b"IDAT", &stored(rows));
    chunk(&mut png, b"IEND", &[]);
    png
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    png.extend((data.len() as u32).to_be_bytes());
    let from = png.len();
    png.extend(kind);
    png.extend(data);
    let sum = crc32(&png[from..]);
    png.extend(sum.to_be_bytes());
}

/// A zlib stream (RFC 1950) of stored blocks (RFC 1951).
fn stored(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut blocks = data.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        out.push(u8::from(blocks.peek().is_none()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    out.extend(adler32(data).to_be_bytes());
    out
}

fn adler32(data: &[u8]) -> u32 {
    let (a, b) = data.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    b << 16 | a
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Width, height and the rows of a picture, every check sum compared.
    fn decode(png: &[u8]) -> (u32, u32, Vec<u8>) {
        let mut at = 8;
        let (mut size, mut data) = ((0, 0), Vec::new());
        while at < png.len() {
            let word = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
            let end = at + 8 + word(at) as usize;
            assert_eq!(word(end), crc32(&png[at + 4..end]));
            match &png[at + 4..at + 8] {
                b"IHDR" => size = (word(at + 8), word(at + 12)),
                b"IDAT" => data.extend(&png[at + 8..end]),
                _ => {}
            }
            at = end + 4;
        }
        let (mut rows, mut at, mut last) = (Vec::new(), 2, false);
        while !last {
            last = data[at] == 1;
            let length = u16::from_le_bytes([data[at + 1], data[at + 2]]) as usize;
            rows.extend(&data[at + 5..at + 5 + length]);
            at += 5 + length;
        }
        assert_eq!(data[at..], adler32(&rows).to_be_bytes());
        (size.0, size.1, rows)
    }

    #[test]
    fn check_sums_are_those_of_their_standards() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn text_is_where_it_belongs_and_nothing_runs_over() {
        let long = "W".repeat(200);
        let lines: Vec<String> =
            (0..100).map(|n| if n == 1 { String::new() } else { long.clone() }).collect();
        let (width, height, rows) = decode(&png(&lines));
        assert_eq!((width as usize, height as usize), SIZE);
        let stride = SIZE.0 / 8 + 1;
        assert_eq!(rows.len(), stride * SIZE.1);
        let lit = |y: usize| rows[y * stride + 1..(y + 1) * stride].iter().any(|b| *b != 0);
        assert!(lit(0) && !lit(16) && !lit(31) && lit(32));
        assert_eq!(png(&lines), png(&lines));
        assert_ne!(png(&["a".into()]), png(&["b".into()]));
    }
}
