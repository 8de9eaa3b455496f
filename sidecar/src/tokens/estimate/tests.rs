use super::*;

/// Texts, and how many tokens the tokenizers `o200k_base` and `cl100k_base` make of them.
const RECORDED: &[(&str, u32, u32)] = &[
    (
        "A sidecar stands beside the engine and decides which requests it can take. When the tide of traffic rises, it closes the gate by degrees, and tells every client how long to wait.",
        38,
        38,
    ),
    (
        "Ein Wächter steht neben der Maschine und entscheidet, welche Anfragen sie bewältigen kann. Wenn die Flut steigt, schließt er das Tor allmählich und sagt jedem, wie lange er warten soll.",
        44,
        52,
    ),
    (
        "Сторож стоит рядом с машиной и решает, какие запросы она может принять. Когда прилив растёт, он понемногу закрывает ворота и говорит каждому, сколько ждать.",
        41,
        70,
    ),
    (
        "守门人站在引擎旁边,决定它能接受哪些请求。潮水上涨时,他逐渐关上闸门,并告诉每个客户需要等待多久。",
        41,
        64,
    ),
    (
        "門番はエンジンのそばに立ち、どの要求を受け入れられるかを決めます。潮が満ちると門を少しずつ閉め、どれだけ待てばよいかを皆に伝えます。",
        61,
        74,
    ),
    (RUST, 84, 84),
];

const RUST: &str = r"fn close(gate: &mut Gate, level: f64) -> Option<Duration> {
    let excess = level - gate.ceiling;
    if excess <= 0.0 {
        return None;
    }
    gate.open = (1.0 - excess).max(0.0);
    Some(Duration::from_millis((excess * 1000.0) as u64))
}";

#[test]
fn the_estimate_of_recorded_texts_is_as_far_off_as_the_docs_say() {
    for (recorded, o200k, cl100k) in RECORDED {
        let estimated = f64::from(text(Chars::of(recorded.as_bytes())));
        for exact in [*o200k, *cl100k] {
            let off = estimated / f64::from(exact) - 1.0;
            assert!((-0.35..=0.45).contains(&off), "{off:+.2} of {exact}: {recorded}");
        }
    }
}

#[test]
fn no_number_overflows() {
    let all = Chars { one: u64::MAX / 5000, two: 0, three: u64::MAX / 5000, four: 0 };
    assert_eq!(text(all), u32::MAX);
    assert_eq!(prompt(all, u64::MAX, u64::MAX), u32::MAX);
    assert_eq!(scaled(u32::MAX, u64::MAX, 0), u32::MAX);
    assert_eq!(scaled(10, 5, 100), 10, "a part is no larger than its whole");
}
