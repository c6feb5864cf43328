use metal_broker::port::conformance::{self, Expected};

use super::*;

const TOML: &str = r#"
[[machines]]
id = "m1"
cores = 32
memory_gib = 128
arch = "x86_64"
rack = "r1"
features = ["tpm2", "sriov"]
labels = { row = "b" }

[[machines]]
id = "m2"
cores = 64
memory_gib = 256
gpus = 2
gpu_model = "a100"
nics = 2
nic_gbps = 100
arch = "x86_64"
rack = "r2"
zone = "z2"
health = "warning"
clean = false
"#;

const CSV: &str = "\
id,cores,memory_gib,arch,rack,features,labels,gpus,gpu_model,nics,nic_gbps,zone,health,clean
m1,32,128,x86_64,r1,tpm2 sriov,row=b,,,,,,,
m2,64,256,x86_64,r2,,,2,a100,2,100,z2,warning,no
";

const EXPECTED: Expected<'_> = Expected {
    machines: &["m1", "m2"],
    reserves: false,
    secret: "",
};

#[tokio::test]
async fn both_forms_conform_and_say_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut stocks = Vec::new();
    for (name, text) in [("hall.toml", TOML), ("hall.csv", CSV)] {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let provider = MachineFile::new("acme", "hall", &path);
        conformance::all(&provider, EXPECTED).await;
        stocks.push(provider.stock().await.unwrap().machines);
    }
    assert_eq!(stocks[0], stocks[1]);
}

#[tokio::test]
async fn what_changes_in_the_file_is_seen_and_a_lost_file_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hall.toml");
    let provider = MachineFile::new("acme", "hall", &path);
    assert_eq!(provider.stock().await.unwrap_err().kind, Kind::Unavailable);
    std::fs::write(&path, TOML).unwrap();
    assert_eq!(provider.look("m1").await.unwrap().cores, 32);
    std::fs::write(&path, TOML.replace("cores = 32", "cores = 16 ")).unwrap();
    assert_eq!(provider.look("m1").await.unwrap().cores, 16);
    std::fs::write(&path, TOML.replace("\"m1\"", "\"m9\"")).unwrap();
    assert_eq!(provider.take("m1", "C1").await.unwrap_err().kind, Kind::NotFound);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(provider.look("m9").await.unwrap_err().kind, Kind::Unavailable);
}

#[test]
fn rows_that_mean_nothing_are_left_out_and_told_by_their_line() {
    let csv = |text: &str| parse(Path::new("hall.csv"), text);
    let head = "id,cores,memory_gib,arch,rack\n";
    let read = csv(&format!(
        "{head}m1,32,128,x86_64,r1\nm2,many,128,x86_64,r1\nm3,32\nm4,-1,2,x86_64,r1\n,1,1,x,r\n"
    ))
    .unwrap();
    assert_eq!(read.machines.len(), 1);
    assert_eq!(read.troubles.len(), 4, "{:?}", read.troubles);
    assert!(
        read.troubles[0].starts_with("line 3: cores 'many'"),
        "{:?}",
        read.troubles
    );
    assert!(csv("id,cores\nm1,1\n").unwrap_err().message.contains("no column"));
    assert!(
        csv(&format!("{}\n", head.trim().replace("rack", "rak")))
            .unwrap_err()
            .message
            .contains("'rak'")
    );
    assert!(csv("").is_err());
    let toml = |text: &str| parse(Path::new("hall.toml"), text);
    let read = toml("[[machines]]\nid = \"m1\"\ncores = 1\nmemory_gib = 1\narch = \"x\"\nrak = \"r\"\n").unwrap();
    assert!(read.troubles[0].contains("'rak'"), "{:?}", read.troubles);
    assert!(toml("machines = 3").is_err());
    assert!(toml("<html></html>").is_err());
    assert!(parse(Path::new("hall.xml"), "").is_err());
}
