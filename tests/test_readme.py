"""What the README shows runs as it stands, on a table like its own."""

from __future__ import annotations

import glob
import io
import json
import re
import shlex
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medvl.losses import ImageTextContrastiveLoss

README = (Path(__file__).parents[1] / "README.md").read_text()
TINY = ["--epochs", "1", "--image-size", "32", "--set", "embed_dim=8", "--set", "vocab_size=200"]
REPORTS = (
    "The heart is enlarged. No pleural effusion.", "Clear lungs.", "Large left pleural effusion. No cardiomegaly.",
    "Pulmonary edema. The heart is enlarged.", "No edema. No pneumothorax.", "Right apical pneumothorax.",
)  # fmt: skip
OPENI = """<eCitation><uId id="CXR{number}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="FINDINGS">{text}</AbstractText></Abstract></Article></MedlineCitation></eCitation>"""


def block(section: str, language: str, number: int = 0) -> str:
    """A block of code of a section."""
    text = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", README, re.M | re.S).group(1)
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)[number]


@pytest.fixture
def cases(tmp_path, monkeypatch):
    """The README's table with more rows, in the current folder."""
    head = block("Your own images and reports", "text").splitlines()[0]
    assert head == "image,report,patient_id"
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    rows = [head]
    for i in range(120):
        pixels = np.random.default_rng(i).integers(0, 255, (48, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(f"images/{i:04d}.png")
        rows.append(f'images/{i:04d}.png,"{REPORTS[i % 6]}",p{i}')
    Path("cases.csv").write_text("\n".join(rows) + "\n")
    Path("reports.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.usefixtures("cases")
def test_commands(medvl):
    lines = [line.partition("  #")[0] for line in block("Your own images and reports", "bash").splitlines()]
    assert [line.split()[1] for line in lines] == ["label", "audit", "train", "evaluate", "predict", "explain", "embed"]
    for line in lines:
        arguments = [
            name for given in shlex.split(line)[1:] for name in (sorted(glob.glob(given)) if "*" in given else [given])
        ]
        code, out, err = medvl(*arguments, *(TINY if arguments[0] == "train" else ()))
        assert code == 0, f"{line}: {err}"
        if arguments[0] == "evaluate":
            assert "cases.csv: no column of labels is named (--label-column), so the findings are those that" in err
            assert "training split" not in out
            results = json.loads(Path("runs/first/evaluation.json").read_text())
            assert {"zero_shot", "retrieval", "linear_probe"} <= set(results)
            assert "Pleural Effusion" in results["zero_shot"]["findings"]
        if arguments[0] == "predict":
            assert out.count("images/") == 120
        if arguments[0] == "explain":
            found = (
                r"The heart is enlarged\.  cosine with the whole image -?\d\.\d{3}, highest at row \d+, column \d+\n"
            )
            assert re.match(found + "Picture: explanation.png\n", out)
    assert Path("explanation.png").stat().st_size > 1000


@pytest.mark.usefixtures("cases")
def test_sources_and_a_configuration_to_edit(medvl):
    with Path("pneumonia.csv").open("w") as file:
        file.write("image,finding\n")
        file.writelines(f"images/{i:04d}.png,{'Pneumonia' if i % 2 else 'No Finding'}\n" for i in range(60))
    with tarfile.open("openi-reports.tgz", "w:gz") as archive:
        for i in range(60):
            content = OPENI.format(number=i, text=REPORTS[i % 6]).encode()
            member = tarfile.TarInfo(f"ecgen-radiology/{i}.xml")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    line = block("Your own images and reports", "bash", 1).replace("\\\n", " ")
    code, out, err = medvl(*shlex.split(line)[1:], *TINY)
    assert code == 0, err
    assert "Trained model in" in out
    assert "`medvl config convirt > my.yaml` writes every setting to a file to edit and run" in README
    code, out, err = medvl("config", "convirt")
    assert code == 0, err
    Path("my.yaml").write_text(out)
    code, _, err = medvl("train", "my.yaml", "--data", "cases.csv", "--output", "runs/mine", *TINY)
    assert code == 0, err


def test_links_and_pictures_show_on_a_package_index():
    """They are absolute, and what they name of the repository, by the address in ``setup.cfg``, is in it."""
    root = Path(__file__).parents[1]
    (home,) = re.findall(r"^url = https://github\.com/(.*)$", (root / "setup.cfg").read_text(), re.M)
    addresses = re.findall(r'\]\((.*?)\)|src="(.*?)"', README)
    addresses = [link or picture for link, picture in addresses]
    assert len(addresses) > 15
    assert [address for address in addresses if not address.startswith("https://")] == []
    own = re.compile(rf"https://(?:github\.com/{home}/blob|raw\.githubusercontent\.com/{home})/main/(.*)")
    named = [match[1] for address in addresses if (match := own.match(address))]
    assert "docs/images/front_sentences.png" in named
    assert [path for path in named if not (root / path).is_file()] == []


def test_every_block_is_run():
    """Here, by ``.ci/run`` word for word (the test command, the demo), or in the documentation's step."""
    code = re.findall(r"^```(?:bash|python)\n(.*?)^```$", README, re.M | re.S)
    section = "Your own images and reports"
    ran = [block(section, "bash"), block(section, "bash", 1)]
    ran += [block("Your own training loop", "python"), block("Your own MONAI pipeline", "python")]
    assert code == [
        "git clone https://github.com/medvl/medvl && cd medvl\n"
        "python -m venv .venv && . .venv/bin/activate                # Python 3.11 or newer\n"
        'pip install -c constraints.txt -e ".[cli]" && medvl demo\n',
        *ran,
        'pip install -c constraints.txt -e ".[dev]" && pytest\n',
    ]
    script = (Path(__file__).parents[1] / ".ci" / "run").read_text()
    assert "<!-- test command -->" in script
    assert "\nmedvl demo --output" in script


def test_the_losses_train_networks_of_plain_torch():
    torch.manual_seed(0)
    image_network, text_network = torch.nn.Linear(8, 4), torch.nn.Linear(6, 4)
    batch = (torch.randn(5, 8), torch.randn(5, 6), ["a", "b", "b", "c", "d"])
    names = {
        "loader": [batch] * 50,
        "image_network": image_network,
        "text_network": text_network,
        "optimizer": torch.optim.Adam([*image_network.parameters(), *text_network.parameters()], lr=0.01),
    }
    first = ImageTextContrastiveLoss()(image_network(batch[0]), text_network(batch[1]), batch[2], batch[2])
    exec(block("Your own training loop", "python"), names)
    assert names["loss"] < first / 2


@pytest.mark.usefixtures("cases")
def test_snippet():
    code = block("Your own MONAI pipeline", "python")
    assert code.count("max_epochs=20") == code.count("image_size=128,") == 1
    names = {}
    exec(code.replace("max_epochs=20", "max_epochs=1").replace("128", "32"), names)
    assert names["trainer"].state.iteration == 4
    assert np.isfinite(float(names["trainer"].state.output["loss"].detach()))
