"""What a first layer reads, one weight at a time: the twins of `measures.structure`."""


def kept_by_column(weight, mask, groups, amount):
    """Return [neurons][columns]: the sums of `amount` of the kept weights, as plain lists."""
    sums = []
    for neuron in range(len(weight)):
        row = []
        for start, stop in groups:
            kept = [i for i in range(start, stop) if mask[neuron][i]]
            row.append(sum(amount(float(weight[neuron][i])) for i in kept))
        sums.append(row)
    return sums


def column_share(weight, mask, groups, amount):
    neurons = kept_by_column(weight, mask, groups, amount)
    sums = [sum(row[i] for row in neurons) for i in range(len(groups))]
    return [one / sum(sums) if sum(sums) else 0.0 for one in sums]


def neuron_shares(weight, mask, groups):
    sums = kept_by_column(weight, mask, groups, lambda w: w * w)
    return [[one / sum(row) if sum(row) else 0.0 for one in row] for row in sums]


def columns_read(weight, mask, groups):
    shares = neuron_shares(weight, mask, groups)
    return [1 / sum(p * p for p in row) if any(row) else 0.0 for row in shares]


def column_pairs(weight, mask, groups):
    shares, columns = neuron_shares(weight, mask, groups), range(len(groups))
    return [[sum((row[i] * row[j]) ** 0.5 for row in shares) for j in columns] for i in columns]
