"""Every contract on every model of the zoo: kept, or refused by name, and docs/any_model.md has the table of them."""

import pytest
from zoo_contracts import CONTRACTS, SLOW
from zoo_entries import ZOO, Entry
from zoo_table import PAGE, page_with_table, refusal

# torch's own: of inductor's import, of outputs between two compiled parts, of caches in transformers, of gradients that
# end at int8 layers, of copies of these, and of how nn.TransformerEncoder leaves padding out.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        ".torch.jit.script_method. is deprecated",
        "The .grad attribute of a Tensor that is not a leaf",
        "Dynamo detected a call to a .functools.lru_cache",
        "quantized..linear_dynamic. an autograd kernel was not registered",
        "TypedStorage is deprecated",
        "The PyTorch API of nested tensors is in prototype stage",
    )
]


def cell(contract: str, entry: Entry):
    marks = [pytest.mark.slow] if contract in SLOW else []
    return pytest.param(contract, entry, id=f"{contract}-{entry.name}", marks=marks)


@pytest.mark.parametrize(("contract", "entry"), [cell(contract, entry) for entry in ZOO for contract in CONTRACTS])
def test_contract(contract: str, entry: Entry) -> None:
    if contract in entry.refused:
        refusal(contract, entry)
    elif contract in entry.impossible:
        with pytest.raises(RuntimeError, match=entry.impossible[contract]):
            CONTRACTS[contract](entry)
    else:
        CONTRACTS[contract](entry)


def test_the_page_has_the_table_that_the_zoo_makes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page_with_table(text), "make the table again: python tests/zoo/zoo_table.py"
