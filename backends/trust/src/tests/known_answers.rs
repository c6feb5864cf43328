//! Answers that are known: RFC 8032's own vectors, our layout byte by byte, and what the strict check has to refuse.

use zeroize::Zeroizing;

use super::{host, identity};
use crate::core::keys::{Identity, PublicKey, unhexed};
use crate::core::refusal::Refusal;
use crate::core::stamp::{Domain, Stamp, bytes_to_sign};
use crate::core::token::{Join, Token};

/// RFC 8032, 7.1, tests 1 to 3: secret, public, message, signature.
const VECTORS: [[&str; 4]; 3] = [
    [
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ],
    [
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ],
    [
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ],
];

#[test]
fn the_vectors_of_the_rfc() {
    for [secret, public, message, signature] in VECTORS {
        let key = Identity::from_seed(&Zeroizing::new(unhexed(secret).unwrap()));
        assert_eq!(key.public().to_string(), public);
        let message = hex::decode(message).unwrap();
        assert_eq!(hex::encode(key.sign(&message)), signature);
        let public: PublicKey = public.parse().unwrap();
        assert_eq!(public.verify(&message, &unhexed(signature).unwrap()), Ok(()));
    }
}

#[test]
fn the_layout_byte_by_byte() {
    let nonce = *b"0123456789abcdef";
    let bytes = bytes_to_sign(Domain::Request, &host("h1"), 0x0102, &nonce, &[b"s", b""]);
    let mut expected = b"windlass signed v1\0request\0".to_vec();
    expected.extend([7, 0, 0, 0]);
    expected.extend(b"host:h1");
    expected.extend([2, 1, 0, 0, 0, 0, 0, 0]);
    expected.extend(nonce);
    expected.extend([2, 0, 0, 0]);
    expected.extend([1, 0, 0, 0, b's']);
    expected.extend([0, 0, 0, 0]);
    assert_eq!(hex::encode(bytes), hex::encode(expected));
}

/// The signature of the RFC's first key on one request: whoever writes another windlass has to come to the same.
#[test]
fn a_stamp_that_is_known() {
    let key = Identity::from_seed(&Zeroizing::new(unhexed(VECTORS[0][0]).unwrap()));
    let stamp = Stamp::new(
        &key,
        Domain::Job,
        &host("h1"),
        1_764_100_000_000,
        [0xAB; 16],
        &[b"a", b"bc"],
    );
    let text = stamp.to_string();
    assert!(
        text.starts_with("v1.host:h1.1764100000000.abababababababababababababababab."),
        "{text}"
    );
    assert_eq!(text.parse::<Stamp>(), Ok(stamp.clone()));
    assert_eq!(stamp.check(&key.public(), Domain::Job, &[b"a", b"bc"]), Ok(()));
    // Ed25519 is deterministic
    let again = Stamp::new(
        &key,
        Domain::Job,
        &host("h1"),
        1_764_100_000_000,
        [0xAB; 16],
        &[b"a", b"bc"],
    );
    assert_eq!(again, stamp);
    // the same bytes in other parts, another domain, another order: another thing
    for (domain, parts) in [
        (Domain::Job, [&b"ab"[..], b"c"]),
        (Domain::Job, [&b"bc"[..], b"a"]),
        (Domain::Request, [&b"a"[..], b"bc"]),
        (Domain::Record, [&b"a"[..], b"bc"]),
    ] {
        assert_eq!(stamp.check(&key.public(), domain, &parts), Err(Refusal::Altered));
    }
    assert!(text.len() <= wire::Headers::VALUE_BYTES_MAX);
    let longest = Stamp {
        sender: wire::Sender::of("person", &"x".repeat(64)).unwrap(),
        time_ms: 9_999_999_999_999,
        ..stamp
    };
    assert!(longest.to_string().len() <= wire::Headers::VALUE_BYTES_MAX);
}

#[test]
fn weak_keys_and_second_forms_are_refused() {
    // points of small order: under them a signature may be made without a secret
    for weak in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ] {
        assert!(weak.parse::<PublicKey>().is_err(), "{weak}");
    }
    for no_key in [
        "",
        "zz",
        &"0".repeat(63),
        &VECTORS[0][1].to_uppercase(),
        &format!("{} ", VECTORS[0][1]),
    ] {
        assert!(no_key.parse::<PublicKey>().is_err(), "{no_key}");
    }
    // S + L is the same number for the curve, and another text
    let (key, message) = (identity(1), b"once");
    let mut signature = key.sign(message);
    assert_eq!(key.public().verify(message, &signature), Ok(()));
    let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
    let mut carry = 0_u16;
    for (byte, add) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = ((sum & 0xFF) as u8, sum >> 8);
    }
    assert_eq!(key.public().verify(message, &signature), Err(Refusal::Altered));
}

#[test]
fn texts_that_are_no_stamps() {
    let good = Stamp::new(&identity(1), Domain::Job, &host("h1"), 7, [1; 16], &[]).to_string();
    let fields: Vec<&str> = good.split('.').collect();
    let with = |n: usize, field: &str| {
        let mut fields = fields.clone();
        fields[n] = field;
        fields.join(".")
    };
    let bad = [
        String::new(),
        "v1".into(),
        format!("{good}."),
        format!(" {good}"),
        with(0, "v2"),
        with(1, "h1"),
        with(1, "host:"),
        with(2, "07"),
        with(2, "+7"),
        with(2, "99999999999999999999"),
        with(3, &fields[3][1..]),
        with(3, &"A".repeat(32)),
        with(4, &fields[4][1..]),
        with(4, &fields[4].to_uppercase()),
    ];
    for text in bad {
        assert_eq!(text.parse::<Stamp>(), Err(Refusal::Unreadable), "{text}");
    }
}

#[test]
fn a_token_shows_nothing_but_in_its_text() {
    let token = Token {
        member: host("h2"),
        key: identity(9),
        issuer: identity(1).public(),
    };
    let text = token.text();
    let secret = hex::encode([9_u8; 32]);
    assert!(text.contains(&secret));
    assert!(
        !format!("{token:?} {:?}", token.key).contains(&secret),
        "no secret in Debug"
    );
    let read: Token = text.parse().unwrap();
    assert_eq!(
        (&read.member, read.key.public(), &read.issuer),
        (&token.member, token.key.public(), &token.issuer)
    );
    let join = Join::new(&read, &identity(5));
    assert_eq!(join.check(), Ok(()));
    assert_eq!(join, Join::new(&token, &identity(5)), "asked again, the same");
    assert!(!serde_json::to_string(&join).unwrap().contains(&secret));
    for bad in [
        "",
        "windlass-token.host.h2",
        &text.replace("host", "root"),
        &text.replace("h2.", "h2.x"),
    ] {
        assert!(bad.parse::<Token>().is_err(), "{bad}");
    }
}
