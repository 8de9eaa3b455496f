use proptest::prelude::*;

use super::*;

const STREAM: &[u8] = b"\xef\xbb\xbf: ping\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"tide\"}}]}\n\nevent: x\r\ndata:{\"choices\":\r\ndata: [{\"delta\":{\"content\":\"tide tide\"}}]}\r\n\r\n\ndatafoo: {\"choices\":[{\"text\":\"no\"}]}\n\ndata\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\r\rdata: [DONE]\n\n";

fn read(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> (u32, Vec<usize>) {
    let (mut events, mut usage) = (EventReader::default(), UsageReader::of_events());
    let (mut ends, mut at) = (Vec::new(), 0);
    for piece in pieces {
        ends.extend(events.feed(piece.as_ref(), &mut usage).map(|end| at + end));
        at += piece.as_ref().len();
    }
    (usage.output(), ends)
}

#[test]
fn data_is_read_however_the_stream_is_cut() {
    for step in 1..=STREAM.len() {
        assert_eq!(read(STREAM.chunks(step)).0, 4, "in pieces of {step}");
    }
}

#[test]
fn a_mark_of_byte_order_is_no_part_of_the_first_line_and_of_no_other() {
    let event = b"data: {\"choices\":[{\"text\":\"tide\"}]}\n\n";
    let plain = read([&event[..]]).0;
    let marked = [&b"\xef\xbb\xbf"[..], event].concat();
    let twice = [&marked[..], &marked].concat();
    for step in 1..=marked.len() {
        assert_eq!(read(marked.chunks(step)).0, plain, "in pieces of {step}");
        assert_eq!(read(twice.chunks(step)).0, plain, "the second begins no field that is known");
    }
    assert_eq!(read([&b"\xef\xbb"[..], event]).0, 0, "half a mark is none");
}

#[test]
fn a_stream_can_be_cut_where_it_is_said_that_an_event_ends() {
    let ends = read(STREAM.chunks(1)).1;
    assert_eq!(ends.len(), 5);
    for end in ends {
        let before = &STREAM[..end];
        assert!(
            before.ends_with(b"\n\n") || before.ends_with(b"\r\n\r") || before.ends_with(b"\r\r"),
            "at {end}"
        );
    }
    let (_, whole) = read([STREAM]);
    assert_eq!(whole, [STREAM.len()]);
    let (_, windows) = read([b"data: 1\r\n\r\n"]);
    assert_eq!(windows, [11], "the line feed belongs to the event");
}

proptest! {
    #[test]
    fn no_bytes_break_it_and_no_cut_changes_what_it_reads(
        lines in proptest::collection::vec(
            prop_oneof![
                "data: \\{\"choices\":\\[\\{\"text\":\"[a-z]{0,9}\"\\}\\]\\}", "data: .{0,20}", "[a-z:]{0,8}", Just(String::new()),
            ], 0..12),
        end in prop_oneof![Just("\n"), Just("\r"), Just("\r\n")],
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let stream = lines.join(end) + end + end;
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &stream.as_bytes()[cut[0]..cut[1]]);
        prop_assert_eq!(read(pieces).0, read([stream.as_bytes()]).0);
    }
}
