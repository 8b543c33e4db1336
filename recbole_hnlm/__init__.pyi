from recbole_hnlm.quick_start.api import load_data_and_model as load_data_and_model
from recbole_hnlm.quick_start.api import objective_function as objective_function
from recbole_hnlm.quick_start.api import run_recbole_hnlm as run_recbole_hnlm
from recbole_hnlm.quick_start.exporting import export_embeddings as export_embeddings
from recbole_hnlm.quick_start.recommending import Recommender as Recommender
from recbole_hnlm.quick_start.recommending import recommend as recommend

__version__: str
