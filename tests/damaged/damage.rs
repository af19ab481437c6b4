//! What can be done to a queue file: every kind of damage at many places, and the octets that it leaves.

/// What is done to a file; numbers say where.
#[derive(Debug, Clone, Copy)]
pub enum Damage {
    /// One bit is another one.
    Bit(usize),
    /// All bits of an octet.
    Flip(usize),
    Zero(usize),
    /// The rest is missing.
    Cut(usize),
    /// One octet too many.
    Insert(usize),
    /// Two records have changed places.
    Swap(usize),
    /// A pointer stands in the place of a record, and leads there.
    Pointer(usize, To),
    /// Somebody marks a recipient done, or takes such a mark away.
    Mark(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub enum To {
    Itself,
    Back,
    Content,
    Extracted,
    LastRecord,
    PastTheEnd,
}

/// Places in a file, from its beginning to its end.
const PLACES: usize = 27;
const SWAPS: usize = 24;
const POINTERS: usize = 5;

/// One damage for each message.
pub fn plan() -> Vec<Damage> {
    let kinds = [
        Damage::Bit as fn(usize) -> Damage,
        Damage::Flip,
        Damage::Zero,
        Damage::Cut,
        Damage::Insert,
    ];
    let mut all: Vec<Damage> = (0..PLACES)
        .flat_map(|place| kinds.map(|kind| kind(place)))
        .collect();
    all.extend((0..SWAPS).map(Damage::Swap));
    let to = [
        To::Itself,
        To::Back,
        To::Content,
        To::Extracted,
        To::LastRecord,
        To::PastTheEnd,
    ];
    all.extend((0..POINTERS).flat_map(|place| to.map(|to| Damage::Pointer(place, to))));
    for name in ["bob", "ann", "ted"] {
        all.extend([Damage::Mark(name); 4]);
    }
    all
}

/// The records of a file: offset and length of each, with type and length octets.
fn records(octets: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < octets.len() {
        let (mut length, mut next) = (0, at + 1);
        loop {
            let octet = octets[next];
            length |= usize::from(octet & 0x7f) << (7 * (next - at - 1));
            next += 1;
            if octet & 0x80 == 0 {
                break;
            }
        }
        found.push((at, next + length - at));
        at = next + length;
    }
    found
}

impl Damage {
    /// The file after it.
    pub fn applied(self, good: &[u8]) -> Vec<u8> {
        let mut octets = good.to_vec();
        let records = records(good);
        let of_type = |kind: u8| {
            let mut records = records.iter();
            records.find(|(at, _)| good[*at] == kind).expect("a record")
        };
        let at = |place: usize| good.len() * place / PLACES;
        match self {
            Self::Bit(place) => octets[at(place)] ^= 1 << (place % 8),
            Self::Flip(place) => octets[at(place)] ^= 0xff,
            Self::Zero(place) => octets[at(place)] = 0,
            Self::Cut(place) => octets.truncate(at(place)),
            Self::Insert(place) => octets.insert(at(place), b'R'),
            Self::Swap(pair) => {
                // Never in the text of the message.
                let text = of_type(b'M').0..of_type(b'X').0;
                let pairs = records.windows(2);
                let pairs: Vec<_> = pairs
                    .filter(|two| !two.iter().any(|(at, _)| text.contains(at)))
                    .collect();
                let [(first, length), (second, other)] = pairs[pair % pairs.len()] else {
                    unreachable!("two");
                };
                let swapped = [
                    &good[*second..second + other],
                    &good[*first..first + length],
                ];
                octets[*first..second + other].copy_from_slice(&swapped.concat());
            }
            Self::Pointer(place, to) => {
                // A pointer has fifteen digits, and padding at least two octets.
                let long = records.iter().filter(|(_, length)| *length >= 19);
                let long: Vec<_> = long.filter(|(at, _)| good[*at] != b'C').collect();
                let (from, length) = *long[place * long.len() / POINTERS];
                let target = match to {
                    To::Itself => from,
                    To::Back => records[1].0,
                    To::Content => of_type(b'M').0 + 7,
                    To::Extracted => of_type(b'X').0,
                    To::LastRecord => of_type(b'E').0,
                    To::PastTheEnd => good.len() + 1000,
                };
                let rest = length - 19;
                let padding = [b'w', u8::try_from(rest).expect("a short record")];
                let digits = format!("{target:015}");
                let pointer = [b"p\x0f".as_slice(), digits.as_bytes(), &padding].concat();
                octets[from..from + 19].copy_from_slice(&pointer);
                octets[from + 19..from + length].fill(b'0');
            }
            Self::Mark(name) => {
                let mut records = records.iter();
                let own = records.find(|(at, length)| {
                    let data = &good[at + 2..at + length];
                    b"RD".contains(&good[*at]) && data.starts_with(name.as_bytes())
                });
                let octet = &mut octets[own.expect("a recipient").0];
                *octet = if *octet == b'R' { b'D' } else { b'R' };
            }
        }
        octets
    }
}
